import lightning.pytorch as lightning
import timm
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

import formulavision as fv

recipe = {"generator": "perlin", "categories": 8, "instances": 16, "canvas": {"size": 64}}
settings = {"epochs": 2, "batch_size": 32, "resize": 64, "crop": 64, "held_out": 2, "learning_rate": 0.05, "ema": 0.9}
data = fv.FormulaDataModule(recipe, settings)
model = timm.create_model("test_resnet", num_classes=data.num_classes)
module = fv.LightningClassifier(model, settings, data.num_classes)
callbacks = [ModelCheckpoint(monitor="validation_accuracy", mode="max"), EarlyStopping("validation_loss")]
trainer = lightning.Trainer(max_epochs=2, callbacks=callbacks)
trainer.fit(module, data)
print(trainer.callback_metrics["validation_accuracy"])
