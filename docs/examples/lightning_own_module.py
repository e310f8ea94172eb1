import lightning.pytorch as lightning
import torch

import formulavision as fv


class Net(lightning.LightningModule):
    def __init__(self, classes):
        super().__init__()
        self.features = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 5, stride=2), torch.nn.ReLU())
        self.head = torch.nn.Linear(16, classes)

    def training_step(self, batch, step):
        images, labels = batch  # float32 [b, 3, 64, 64], int64 [b]
        loss = torch.nn.functional.cross_entropy(self.head(self.features(images).mean((2, 3))), labels)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 1e-3)


recipe = {"generator": "perlin", "categories": 8, "instances": 16, "canvas": {"size": 64}}
data = fv.FormulaDataModule(recipe, {"batch_size": 32, "resize": 64, "crop": 64})
lightning.Trainer(max_epochs=2).fit(Net(data.num_classes), data)
