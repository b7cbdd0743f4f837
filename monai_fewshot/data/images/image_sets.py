# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.config import PathLike
from monai.utils import ensure_tuple

from .image_layouts import LAYOUTS, listed_images, recognize

__all__ = ["ImageSet", "load_image_list", "load_image_pools", "load_image_set"]


@dataclass(frozen=True)
class ImageSet:
    """2D images with their masks, and what the masks' values stand for.

    Attributes:
        images: one dictionary an image: ``name``, path of the ``image``, and where there is a mask its path as
            ``label``. With ``class_number`` the mask is binary and its foreground stands for that class; without, its
            values are class numbers, 0 background and 255 ignored. With ``mask_threshold`` a binary mask is what lies
            above that gray level.
        class_names: name by number, from 1.
    """

    images: tuple[dict[str, Any], ...]
    class_names: dict[int, str]

    def __post_init__(self) -> None:
        names = [image["name"] for image in self.images]
        if len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ValueError(f"Several images are called {', '.join(twice[:10])}: every image needs a name of its own.")

    def of_classes(self, classes: Collection[int | str]) -> ImageSet:
        """Keep some classes, for training and test classes to be disjoint.

        Images of other classes go; images whose mask holds several classes stay, as background where they show others.

        Args:
            classes: their numbers or names.

        Returns:
            The set, with the same numbers.

        Raises:
            ValueError: where a class is unknown.
        """
        numbers = {name: number for number, name in self.class_names.items()}
        unknown = [c for c in classes if c not in numbers and c not in self.class_names]
        if unknown:
            known = ", ".join(f"{number} {name}" for number, name in list(self.class_names.items())[:20])
            raise ValueError(f"There are no classes {', '.join(map(repr, unknown))}; known are: {known}.")
        kept = {c if isinstance(c, int) else numbers[c] for c in classes}
        return ImageSet(
            tuple(image for image in self.images if image.get("class_number", min(kept, default=0)) in kept),
            {number: name for number, name in self.class_names.items() if number in kept},
        )

    def without_classes(self, classes: Collection[int | str]) -> ImageSet:
        """Keep all classes but some, see :meth:`of_classes`."""
        left_out = self.of_classes(classes).class_names
        return self.of_classes([number for number in self.class_names if number not in left_out])

    def named(self, names: Iterable[str]) -> ImageSet:
        """Keep the images of these names.

        Raises:
            ValueError: where a name is unknown.
        """
        wanted = set(names)
        unknown = wanted - {image["name"] for image in self.images}
        if unknown:
            raise ValueError(f"There are no images called {', '.join(sorted(unknown)[:10])}.")
        return ImageSet(tuple(image for image in self.images if image["name"] in wanted), self.class_names)

    def check_episodes(self, shots: int, ways: int = 1, queries: int = 1) -> None:
        """Check that every class has the images that an episode needs: its shots and queries.

        Of images whose masks hold several classes this cannot be told before they are read.

        Raises:
            ValueError: where there are fewer classes than ways, or a class has too few images; all are listed.
        """
        if len(self.class_names) < ways:
            raise ValueError(f"{ways}-way episodes need as many classes, there are {len(self.class_names)}.")
        counts = dict.fromkeys(self.class_names, 0)
        for image in self.images:
            if "class_number" not in image:
                return
            counts[image["class_number"]] += "label" in image
        few = [f"{self.class_names[c]} has {count}" for c, count in counts.items() if count < shots + queries]
        if few:
            raise ValueError(
                f"{shots}-shot episodes{f' of {queries} queries' if queries > 1 else ''} need {shots + queries} "
                f"annotated images of a class; {', '.join(few[:10])}"
                f"{f' and {len(few) - 10} more classes' if len(few) > 10 else ''}. Annotate more, leave these classes "
                "out, or ask for fewer shots."
            )


def load_image_set(
    dataset_dir: PathLike,
    layout: str = "auto",
    class_names: Mapping[int, str] | None = None,
    mask_threshold: int | None = None,
    require_labels: bool = False,
) -> ImageSet:
    """List the images of a data set with their masks, sorted by name. Files are not opened.

    Layouts (PNG, JPEG, BMP and TIFF files; a mask's name is that of its image, with or without a suffix such as
    ``_segmentation``, ``_mask`` or ``_lesion``):

    - ``dataset_json``: a ``dataset.json`` that names images, masks and classes, as of
      :func:`~monai_fewshot.data.load_scans`;
    - ``pairs``: a folder ``images`` beside a folder ``masks``, or ``imagesTr`` beside ``labelsTr``, with folders in
      them or without; the names of those become part of the images' names;
    - ``class_folders``: one folder a class, in it images beside their masks (``1.jpg``, ``1.png``), as in FSS-1000, or
      with such a suffix (``1.png``, ``1_mask.png``);
    - ``images``: images directly in the folder, without masks;
    - as they are downloaded: ``isic2018``, ``ph2``, ``kvasir_seg``, ``kvasir_capsule_seg``, ``cvc_clinicdb``,
      ``pascal`` (``JPEGImages`` beside ``SegmentationClassAug`` or ``SegmentationClass``) and ``coco``
      (``train2014``, ``val2014`` and ``annotations`` with masks of class numbers).

    Args:
        dataset_dir: folder.
        layout: one of them, or ``"auto"`` to recognize it. Kvasir's two sets look like ``pairs`` and must be named
            where the gray levels of their JPEG masks matter.
        class_names: names for the classes. For ``pairs`` and ``dataset_json``, two or more mean that masks hold class
            numbers; else they are binary.
        mask_threshold: gray level above which a binary mask's pixels are foreground, for masks with more than two
            values, such as JPEG files.
        require_labels: whether an image without a mask is an error; else it is only where there are masks at all.

    Returns:
        The images and their classes.

    Raises:
        FileNotFoundError: where there is no such folder, or no image in it.
        ValueError: where the layout is not recognized, or images and masks do not pair; all that do not are listed.
    """
    folder = Path(dataset_dir).expanduser().absolute()
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder: give the one that has the images, or their folders, in it.")
    if layout not in (*LAYOUTS, "auto"):
        raise ValueError(f"layout is {layout!r}, must be auto or one of {', '.join(LAYOUTS)}.")
    layout = recognize(folder) if layout == "auto" else layout
    images, names = LAYOUTS[layout](folder)
    names = names if class_names is None else dict(class_names)
    if layout in ("pairs", "dataset_json") and len(names) > 1:
        images = [{key: value for key, value in image.items() if key != "class_number"} for image in images]
    if mask_threshold is not None:
        images = [{**image, "mask_threshold": mask_threshold} for image in images]
    without = [image["name"] for image in images if "label" not in image]
    if without and require_labels:
        raise ValueError(
            f"{folder}: {len(without)} of {len(images)} images have no mask: {', '.join(without[:10])}. "
            "Annotate them or take them out of the folder."
        )
    return ImageSet(tuple(sorted(images, key=lambda image: image["name"])), names)


def load_image_pools(
    dataset_dir: PathLike | Sequence[PathLike], layout: str = "auto", mask_threshold: int | None = None
) -> ImageSet:
    """List the annotated images of several data sets as one set, whose classes keep apart what comes from where.

    Args:
        dataset_dir: folder, or several; images and classes of several are called ``FOLDER/NAME``.
        layout: see :func:`load_image_set`.
        mask_threshold: see there.

    Returns:
        The images of the first, then those of the second, and so on; classes are numbered in that order.

    Raises:
        FileNotFoundError: where there is no such folder, or no image in it.
        ValueError: where a layout is not recognized, images have no masks, two folders have the same name, or masks of
            one of several data sets hold several classes.
    """
    folders = [Path(folder).expanduser().absolute() for folder in ensure_tuple(dataset_dir)]
    sets = [load_image_set(folder, layout, None, mask_threshold, True) for folder in folders]
    if len(sets) == 1:
        return sets[0]
    if len({folder.name for folder in folders}) < len(folders):
        raise ValueError(f"Data sets need names of their own, got folders {', '.join(map(str, folders))}.")
    images: list[dict[str, Any]] = []
    names: dict[int, str] = {}
    for folder, image_set in zip(folders, sets, strict=True):
        if not all("class_number" in image for image in image_set.images):
            raise ValueError(f"{folder}: masks hold several classes, such a set cannot be put together with others.")
        number = {old: len(names) + place for place, old in enumerate(image_set.class_names, 1)}
        names |= {number[old]: f"{folder.name}/{name}" for old, name in image_set.class_names.items()}
        images += [
            {**image, "name": f"{folder.name}/{image['name']}", "class_number": number[image["class_number"]]}
            for image in image_set.images
        ]
    return ImageSet(tuple(images), names)


def load_image_list(list_file: PathLike, dataset_dir: PathLike, class_names: Mapping[int, str]) -> ImageSet:
    """List the images that a text file of Pascal-5i or COCO-20i names.

    A line is ``IMAGE MASK``, two paths relative to the data set, as PFENet's lists have them, or ``NAME__CLASS``, the
    name of a VOC image and one of its classes, as HSNet's lists of Pascal-5i have them.

    Args:
        list_file: the text file.
        dataset_dir: folder that paths are relative to, for ``NAME__CLASS`` that with ``JPEGImages``.
        class_names: what the values of the masks stand for, see
            :func:`~monai_fewshot.data.few_shot_fold_classes`.

    Returns:
        Each image once.

    Raises:
        FileNotFoundError: where the list, an image or a mask is missing.
        ValueError: where a line is of neither form.
    """
    return ImageSet(tuple(listed_images(Path(list_file), Path(dataset_dir))), dict(class_names))
