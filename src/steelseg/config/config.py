"""Every setting: one YAML file, frozen sections, unknown names rejected.

A file has the sections `data`, `model`, `train`, `postprocess`, `tune`, `inference`, `pseudo` and
`search`; settings that it omits keep the default below. On the command line any setting is
`section.name=value`. Components never see these classes: stages unpack them into arguments.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from steelseg.config.components import ARCHITECTURES
from steelseg.config.flips import Flips
from steelseg.config.pseudo import PseudoConfig
from steelseg.config.search import SearchConfig
from steelseg.config.section import Cost, Pixels, Probability, Section
from steelseg.config.train import TrainConfig

# ImageNet's channel means and standard deviations, as published by torchvision. For grayscale
# their averages, because the encoder's first convolution is summed to one channel.
IMAGENET_MEAN = {1: (0.449,), 3: (0.485, 0.456, 0.406)}
IMAGENET_STD = {1: (0.226,), 3: (0.229, 0.224, 0.225)}

# The baseline's weights for the four Severstal classes.
SEVERSTAL_POS_WEIGHT = (2.0, 2.0, 1.0, 1.5)


def _check_length(name: str, values: Sequence[Any], length: int, of: str) -> None:
    """Raise ValueError unless `values` is empty or has `length` values."""
    if values and len(values) != length:
        raise ValueError(f"{name} has {len(values)} values, but {of}={length}")


class DataConfig(Section):
    """The data set: its location, classes, image size, crops and folds."""

    root: Path = Path("input")
    """Folder with train.csv, train_images/, test_images/ and sample_submission.csv."""

    mode: Literal["full", "crops", "precropped"] = "full"
    """full: whole strips. crops: cut while loading. precropped: read `steelseg precrop` output."""

    num_classes: int = Field(4, ge=1, le=255)
    """Number of defect classes. ClassId starts at 1."""

    class_names: tuple[str, ...] = ()
    """Class names, in ClassId order. Empty: "class 1", "class 2", ..."""

    img_height: Annotated[int, Field(gt=0)] | None = 256
    """Height of every image, in pixels. null: heights vary."""

    img_width: Annotated[int, Field(gt=0)] | None = 1600
    """Width of every image, in pixels. null: widths vary."""

    channels: Literal[1, 3] = 1
    """Input channels: 1 reads images as grayscale, 3 as RGB."""

    mean: tuple[float, ...] = ()
    """Per-channel mean for normalization, as a fraction of full scale. Empty: ImageNet."""

    std: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """Per-channel standard deviation, as a fraction of full scale. Empty: ImageNet."""

    crop_height: int = Field(256, gt=0)
    """Crop height, in pixels. Smaller images are used whole."""

    crop_width: int = Field(512, gt=0)
    """Crop width, in pixels. Smaller images are used whole."""

    crop_stride: int = Field(256, gt=0)
    """Stride between neighbouring crops, in pixels, in both directions."""

    pixel_mm: Annotated[float, Field(gt=0)] | None = None
    """Pixel size on the strip, in millimetres. null: unknown; sizes are reported in pixels."""

    precropped_dir: Path = Path("precropped_data")
    """Folder that `steelseg precrop` writes and mode=precropped reads."""

    num_folds: int = Field(5, ge=2)
    """Number of cross-validation folds, stratified by number of defects per image."""

    fold_seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    """Seed of the fold assignment. null: train.seed. Set it to compare or combine runs that
    were trained with different seeds."""

    group_duplicates: bool = True
    """true keeps near-duplicate images (copies, flipped, recompressed) in the same fold."""

    @property
    def names(self) -> tuple[str, ...]:
        """Class names, given or generated."""
        return self.class_names or tuple(f"class {k}" for k in range(1, self.num_classes + 1))

    @property
    def crop(self) -> tuple[int, int, int]:
        """Height, width and stride of a crop, in pixels."""
        return self.crop_height, self.crop_width, self.crop_stride

    @property
    def channel_mean(self) -> tuple[float, ...]:
        """Mean of each channel, length `channels`."""
        return self.mean or IMAGENET_MEAN[self.channels]

    @property
    def channel_std(self) -> tuple[float, ...]:
        """Standard deviation of each channel, length `channels`."""
        return self.std or IMAGENET_STD[self.channels]

    @model_validator(mode="after")
    def _check_list_lengths(self) -> Self:
        _check_length("class_names", self.class_names, self.num_classes, "num_classes")
        _check_length("mean", self.mean, self.channels, "channels")
        _check_length("std", self.std, self.channels, "channels")
        return self

    @model_validator(mode="after")
    def _check_crops(self) -> Self:
        if self.mode == "full":
            return self
        for side, crop, image in (
            ("height", self.crop_height, self.img_height),
            ("width", self.crop_width, self.img_width),
        ):
            if image is not None and crop > image:
                raise ValueError(
                    f"crop_{side}={crop} is larger than img_{side}={image}; "
                    f"use at most {image}, or mode=full"
                )
            if self.crop_stride > crop and (image is None or crop < image):
                raise ValueError(
                    f"crop_stride={self.crop_stride} > crop_{side}={crop} leaves pixels that "
                    f"no crop covers; use a stride of at most {crop}"
                )
        return self


def _is_an_architecture(name: str) -> str:
    """Raise ValueError unless the name is an architecture."""
    if name not in ARCHITECTURES:
        raise ValueError(f"{name!r} is not an architecture; use one of {', '.join(ARCHITECTURES)}")
    return name


class ModelConfig(Section):
    """The network."""

    arch: Annotated[str, AfterValidator(_is_an_architecture)] = "unet"
    """Architecture from segmentation-models-pytorch. classifier: an image-level classifier without
    masks, used as the first stage of `steelseg cascade`."""

    encoder: str = "efficientnet-b3"
    """Encoder name in segmentation-models-pytorch, or `tu-NAME` for a timm encoder."""

    encoder_weights: str | None = "imagenet"
    """Initial encoder weights: imagenet (from the model hub), none for random initialization, or
    the path of a local state dict (.safetensors)."""

    encoder_depth: Literal[3, 4, 5] | None = None
    """Number of downsampling stages, for unet, unetplusplus, linknet and classifier; fewer is
    faster, with a smaller receptive field, and pads images to multiples of 8 or 16 pixels.
    null: the default of the architecture."""

    presence_head: bool = False
    """true adds a head that predicts whether each class is present in the image, as inference.gate
    needs. arch=classifier has only this head and sets it to true."""

    init_from: Path | None = None
    """Checkpoint, or run folder whose checkpoint of the same fold is used, to initialize weights
    from. The encoder must match; other weights are loaded where shapes match. null: do not."""

    @field_validator("encoder_weights")
    @classmethod
    def _convert_none(cls, value: str | None) -> str | None:
        return None if value in (None, "none", "None", "") else value

    @property
    def is_classifier(self) -> bool:
        """Whether the network predicts presence only, without masks."""
        return self.arch == "classifier"

    @model_validator(mode="after")
    def _check_encoder_depth(self) -> Self:
        free = [name for name, architecture in ARCHITECTURES.items() if architecture.any_depth]
        if self.encoder_depth is not None and self.arch not in free:
            raise ValueError(
                f"encoder_depth={self.encoder_depth} is for arch={', '.join(free)}; "
                f"{self.arch} has a fixed depth, so omit the setting"
            )
        return self

    @model_validator(mode="after")
    def _check_classifier_presence(self) -> Self:
        if self.is_classifier and not self.presence_head:
            raise ValueError(
                "arch=classifier predicts only presence and cannot have presence_head=false; "
                "omit presence_head, or choose another arch"
            )
        return self


class PostprocessConfig(Section):
    """Conversion of probabilities to masks. One value for all classes, or one value per class.

    `steelseg tune` chooses the settings that are null and keeps the others.
    """

    threshold: Probability | tuple[Probability, ...] | None = None
    """Minimum probability of a defect pixel. null: tuned, 0.5 before tuning."""

    min_size: Pixels | tuple[Pixels, ...] | None = None
    """Connected components with fewer pixels are removed. null: tuned, 0 before tuning."""

    min_area: Pixels | tuple[Pixels, ...] | None = None
    """Masks of a class with fewer pixels are emptied. null: tuned, 0 before tuning."""

    top_threshold: Probability | tuple[Probability, ...] | None = None
    """Minimum probability of the pixels that count towards min_area. null: tuned, all pixels
    before tuning."""

    gate: Probability | tuple[Probability, ...] | None = None
    """Presence below which inference.gate=hard empties the mask of a class. null: tuned, 0.5
    before tuning."""


class TuneConfig(Section):
    """How `steelseg tune` chooses the postprocess settings that are null."""

    objective: Literal["dice", "dice_positive", "recall", "cost"] = "dice"
    """Objective. dice: the competition's mean Dice. dice_positive: mean Dice over strips with the
    class. recall: fewest false positives at `min_recall`. cost: lowest total cost of false
    negatives and false positives."""

    min_recall: Probability = 0.95
    """Minimum strip-level recall of each class with objective=recall."""

    cost_miss: Cost | tuple[Cost, ...] = 10.0
    """Cost of a false negative (a strip whose class is missed); one value, or one per class."""

    cost_false_alarm: Cost | tuple[Cost, ...] = 1.0
    """Cost of a false positive (a strip with a class predicted that it does not have); one value,
    or one per class."""

    inner_folds: int = Field(5, ge=2)
    """Inner folds of the cross-fitted scores: each is scored with what was chosen on the others."""


class InferenceConfig(Section):
    """How strips are predicted, out of fold and by `steelseg predict`."""

    tta: Flips = "none"
    """Test-time augmentation: the mean over the strip and its flips; both uses all four."""

    crops: bool = False
    """true predicts overlapping crops of the training size and averages them; false predicts whole
    strips."""

    gate: Literal["none", "hard", "soft"] = "none"
    """Use of the presence head. hard: empty the mask of a class with presence below
    postprocess.gate. soft: multiply its probabilities by its presence. Both need
    model.presence_head=true."""

    ensemble: Literal["together", "sequential"] = "together"
    """together keeps all networks in memory; sequential loads one at a time."""

    cascade: bool = True
    """true skips strips that the first stage of `steelseg cascade` classifies as clean; false
    predicts every strip."""

    amp: bool = False
    """true predicts in mixed precision where supported: faster, but not bit-identical."""

    @field_validator("tta", mode="before")
    @classmethod
    def _convert_baseline_tta(cls, value: Any) -> Any:
        """Accept the baseline's TTA = True, which means a horizontal flip."""
        if isinstance(value, bool):
            return "hflip" if value else "none"
        return value


class Config(Section):
    """One complete run."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    postprocess: PostprocessConfig = PostprocessConfig()
    tune: TuneConfig = TuneConfig()
    inference: InferenceConfig = InferenceConfig()
    pseudo: PseudoConfig = PseudoConfig()
    search: SearchConfig = SearchConfig()

    @model_validator(mode="before")
    @classmethod
    def _default_for_classifier(cls, content: Any) -> Any:
        """Default to the settings that a classifier requires."""
        model = content.get("model") if isinstance(content, dict) else None
        if not (isinstance(model, dict) and model.get("arch") == "classifier"):
            return content
        train = content.get("train", {})
        if isinstance(train, dict):
            train = {"monitor": "presence", **train}
        return {**content, "model": {"presence_head": True, **model}, "train": train}

    @model_validator(mode="after")
    def _check_values_per_class(self) -> Self:
        classes = self.data.num_classes
        _check_length("train.pos_weight", self.train.pos_weight, classes, "data.num_classes")
        per_class = {
            **{f"postprocess.{k}": v for k, v in self.postprocess},
            "tune.cost_miss": self.tune.cost_miss,
            "tune.cost_false_alarm": self.tune.cost_false_alarm,
            "pseudo.confidence": self.pseudo.confidence,
        }
        for name, value in per_class.items():
            if isinstance(value, tuple) and len(value) != classes:
                raise ValueError(f"{name} has {len(value)} values, but data.num_classes={classes}")
        return self

    @model_validator(mode="after")
    def _check_gate(self) -> Self:
        if self.inference.gate != "none" and not self.model.presence_head:
            raise ValueError(
                f"inference.gate={self.inference.gate} needs a network that was trained with "
                "model.presence_head=true; train one, or use inference.gate=none"
            )
        return self

    @model_validator(mode="after")
    def _check_classifier(self) -> Self:
        if not self.model.is_classifier:
            return self
        if self.inference.gate != "none":
            raise ValueError(
                f"inference.gate={self.inference.gate} applies presence to masks, which "
                "model.arch=classifier does not predict; use inference.gate=none"
            )
        if self.train.monitor != "presence":
            raise ValueError(
                f"train.monitor={self.train.monitor} scores masks, which model.arch=classifier "
                "does not predict; omit it, or use train.monitor=presence"
            )
        if not self.train.presence_weight:
            raise ValueError(
                "train.presence_weight=0 leaves model.arch=classifier without a loss; use a "
                "weight above 0"
            )
        return self

    @model_validator(mode="after")
    def _check_monitor(self) -> Self:
        if self.train.monitor == "presence" and not self.model.presence_head:
            raise ValueError(
                "train.monitor=presence scores a presence head, but the network does not have one; "
                "use model.presence_head=true, or train.monitor=dice"
            )
        return self

    @model_validator(mode="after")
    def _check_batch_size(self) -> Self:
        pools = self.model.arch in ("pspnet", "deeplabv3", "deeplabv3plus")
        if pools and self.train.batch_size_train < 2:
            raise ValueError(
                f"model.arch={self.model.arch} normalises pooled features over the batch and "
                "cannot train with train.batch_size_train=1; use 2 or more"
            )
        return self

    @property
    def pos_weight(self) -> tuple[float, ...]:
        """Weight of positive pixels per class, given or the default."""
        if self.train.pos_weight:
            return self.train.pos_weight
        classes = self.data.num_classes
        return SEVERSTAL_POS_WEIGHT if classes == 4 else (1.0,) * classes


def setting_names() -> Iterator[str]:
    """Yield every setting as `section.name`, in the order of this file."""
    for section, field in Config.model_fields.items():
        for name in field.default.__class__.model_fields:
            yield f"{section}.{name}"
