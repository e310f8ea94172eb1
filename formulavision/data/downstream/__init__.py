"""Real datasets that a pre-trained model is fine-tuned and evaluated on: one file a kind."""

from formulavision.data.downstream.images import LabelledImages
from formulavision.data.downstream.opening import Downstream, DownstreamLike, open_downstream, open_for_run
from formulavision.data.downstream.settings import DownstreamSettings

__all__ = ["Downstream", "DownstreamLike", "DownstreamSettings", "LabelledImages", "open_downstream", "open_for_run"]
