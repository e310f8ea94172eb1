"""Test images with the corruptions of CIFAR-10-C, as arrays in its layout, for ``--downstream corrupted:OUT``.

    pip install --no-deps imagecorruptions-imaug scikit-image
    python benchmarks/corruptions.py /path/to/cifar10 --out data/cifar10-c --per-class 100

imagecorruptions-imaug 1.1.5 draws the 19 corruptions of Hendrycks and Dietterich with numpy 2. imagecorruptions 1.1.2
does not: it uses ``np.float_`` and ``pkg_resources``, which are gone. Without --no-deps, pip would install
opencv-python over opencv-python-headless. The images are not the published CIFAR-10-C: the library's parameters are
those for images of ImageNet's size, which corrupt small images more.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np

import formulavision as fv


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("downstream", help="a dataset as of --downstream; its images have one size, at least 32 x 32")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--per-class", type=int, default=100, help="test images of each class")
    chosen = parser.parse_args()
    import imagecorruptions  # type: ignore[import-not-found]  # after the arguments: --help needs no library

    settings = fv.DownstreamSettings.from_text(chosen.downstream)
    test = fv.open_downstream(settings.model_copy(update={"test_per_class": chosen.per_class})).test
    images = [image.permute(1, 2, 0).numpy() for image, _ in test]
    chosen.out.mkdir(parents=True)
    (chosen.out / "classes.txt").write_text("\n".join(test.classes) + "\n")
    np.save(chosen.out / "labels.npy", np.tile(test.labels, 5))
    for name in imagecorruptions.get_corruption_names("all"):
        np.random.seed(0)  # noqa: NPY002 - the library draws from it
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            corrupted = [
                imagecorruptions.corrupt(image, corruption_name=name, severity=severity)
                for severity in range(1, 6)
                for image in images
            ]
        np.save(chosen.out / f"{name}.npy", np.stack(corrupted))
        print(f"{chosen.out / name}.npy: {len(corrupted):,} images", flush=True)


if __name__ == "__main__":
    main()
