from . import color as color
from . import noise_fields as noise_fields
from . import points as points
from . import polylines as polylines
from . import random as random
from .kernels import kernel as kernel
