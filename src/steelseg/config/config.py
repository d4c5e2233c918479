"""Every setting: one YAML file, frozen sections, unknown names refused.

A file holds the sections `data`, `model`, `train`, `postprocess`, `tune`, `inference`, `pseudo` and
`search`; what it leaves out keeps the default below. On the command line any setting is
`section.name=value`.
Components never see these classes: stages unpack them into plain arguments.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from steelseg.config.pseudo import PseudoConfig
from steelseg.config.search import SearchConfig
from steelseg.config.section import Cost, Pixels, Probability, Section
from steelseg.config.train import TrainConfig

# ImageNet's channel means and deviations, as torchvision publishes them; the grey ones are
# their averages, for encoders whose first convolution is summed to one channel.
IMAGENET_MEAN = {1: (0.449,), 3: (0.485, 0.456, 0.406)}
IMAGENET_STD = {1: (0.226,), 3: (0.229, 0.224, 0.225)}

# The baseline's weights of the four Severstal classes.
SEVERSTAL_POS_WEIGHT = (2.0, 2.0, 1.0, 1.5)


def _must_be_long(name: str, values: Sequence[Any], length: int, of: str) -> None:
    """Refuse a list that is neither empty nor `length` long."""
    if values and len(values) != length:
        raise ValueError(f"{name} has {len(values)} values, but {of}={length}")


class DataConfig(Section):
    """Where the strips are, what is on them and how they are cut for training."""

    root: Path = Path("input")
    """Folder with train.csv, train_images/, test_images/ and sample_submission.csv."""

    mode: Literal["full", "crops", "precropped"] = "full"
    """full: whole strips. crops: cut while loading. precropped: read `steelseg precrop` output."""

    num_classes: int = Field(4, ge=1, le=255)
    """Defect classes; ClassId counts from 1."""

    class_names: tuple[str, ...] = ()
    """A name for each class, in ClassId order. Empty: "class 1", "class 2", ..."""

    img_height: Annotated[int, Field(gt=0)] | None = 256
    """Height of every image, in pixels. null: each image has its own."""

    img_width: Annotated[int, Field(gt=0)] | None = 1600
    """Width of every image, in pixels. null: each image has its own."""

    channels: Literal[1, 3] = 1
    """1 reads images as grey, 3 as RGB. Strips are grey, whatever their files say."""

    mean: tuple[float, ...] = ()
    """Mean of each channel, of full scale. Empty: ImageNet's."""

    std: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """Standard deviation of each channel, of full scale. Empty: ImageNet's."""

    crop_height: int = Field(256, gt=0)
    """Height of one crop, in pixels; smaller images are taken whole."""

    crop_width: int = Field(512, gt=0)
    """Width of one crop, in pixels; smaller images are taken whole."""

    crop_stride: int = Field(256, gt=0)
    """Distance between neighbouring crops, in pixels, in both directions."""

    pixel_mm: Annotated[float, Field(gt=0)] | None = None
    """Side of a pixel on the strip, in millimetres. null: not known; sizes are shown in pixels."""

    precropped_dir: Path = Path("precropped_data")
    """Folder of the store that `steelseg precrop` makes and mode precropped reads."""

    num_folds: int = Field(5, ge=2)
    """Cross-validation folds, stratified by number of defects per image."""

    fold_seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    """Which strips go to which fold. null: train.seed. Runs of several seeds need one fold_seed to
    be compared or combined."""

    group_duplicates: bool = True
    """true keeps images that look alike (copies, flipped, recompressed) in one fold."""

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each class, given or made up."""
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
    def _lists_must_fit(self) -> Self:
        _must_be_long("class_names", self.class_names, self.num_classes, "num_classes")
        _must_be_long("mean", self.mean, self.channels, "channels")
        _must_be_long("std", self.std, self.channels, "channels")
        return self

    @model_validator(mode="after")
    def _crops_must_cover(self) -> Self:
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


class ModelConfig(Section):
    """The network."""

    arch: Literal[
        "unet",
        "unetplusplus",
        "fpn",
        "linknet",
        "pspnet",
        "deeplabv3",
        "deeplabv3plus",
        "classifier",
    ] = "unet"
    """Architecture, as segmentation-models-pytorch builds it. classifier: an encoder that tells
    which classes are on the image and makes no masks, the first look of `steelseg cascade`."""

    encoder: str = "efficientnet-b3"
    """Any encoder of segmentation-models-pytorch, or `tu-NAME` for one of timm's."""

    encoder_weights: str | None = "imagenet"
    """imagenet (from the model hub), none, or the path of a local state dict (.safetensors)."""

    encoder_depth: Literal[3, 4, 5] | None = None
    """How often the encoder halves the image, for unet, unetplusplus, linknet and classifier; fewer
    times are quicker, pad to 8 or 16 pixels and see less around. null: what the arch is made for.
    """

    presence_head: bool = False
    """true also learns whether a class is on the image at all, for inference.gate. A classifier
    has nothing else, so arch=classifier makes it true."""

    init_from: Path | None = None
    """A run folder, whose same fold is taken, or a checkpoint, to start every weight from that
    fits; the encoder must. null starts anew."""

    @field_validator("encoder_weights")
    @classmethod
    def _none_is_a_word(cls, value: str | None) -> str | None:
        return None if value in (None, "none", "None", "") else value

    @property
    def is_classifier(self) -> bool:
        """Whether the network makes no masks."""
        return self.arch == "classifier"

    @model_validator(mode="after")
    def _depth_must_be_free(self) -> Self:
        free = ("unet", "unetplusplus", "linknet", "classifier")
        if self.encoder_depth is not None and self.arch not in free:
            raise ValueError(
                f"encoder_depth={self.encoder_depth} is for arch={', '.join(free)}; "
                f"{self.arch} has its own, so leave it out"
            )
        return self

    @model_validator(mode="after")
    def _a_classifier_tells_presence(self) -> Self:
        if self.is_classifier and not self.presence_head:
            raise ValueError(
                "arch=classifier tells presence and nothing else, which presence_head=false "
                "denies; leave presence_head out, or choose another arch"
            )
        return self


class PostprocessConfig(Section):
    """From probabilities to masks. One value for all classes, or a list of one a class.

    What is left null, `steelseg tune` chooses; what is set, it keeps.
    """

    threshold: Probability | tuple[Probability, ...] | None = None
    """Probability from which a pixel counts as defect. null: tuned, 0.5 before."""

    min_size: Pixels | tuple[Pixels, ...] | None = None
    """Connected components with fewer pixels are dropped; 0 keeps all. null: tuned, 0 before."""

    min_area: Pixels | tuple[Pixels, ...] | None = None
    """A class whose mask has fewer pixels is emptied; 0 keeps all. null: tuned, 0 before."""

    top_threshold: Probability | tuple[Probability, ...] | None = None
    """Only pixels of this probability count for min_area. null: tuned, all before."""

    gate: Probability | tuple[Probability, ...] | None = None
    """A class of lower presence is emptied by inference.gate=hard. null: tuned, 0.5 before."""


class TuneConfig(Section):
    """How `steelseg tune` chooses what postprocess leaves open."""

    objective: Literal["dice", "dice_positive", "recall", "cost"] = "dice"
    """dice: the competition's mean. dice_positive: over strips with the class. recall: fewest
    false alarms at `min_recall`. cost: lowest sum of misses and false alarms at their costs."""

    min_recall: Probability = 0.95
    """Share of the strips with a class that recall must find."""

    cost_miss: Cost | tuple[Cost, ...] = 10.0
    """Cost of a strip whose defect of a class is missed; one value, or one a class."""

    cost_false_alarm: Cost | tuple[Cost, ...] = 1.0
    """Cost of a strip on which a class is found that is not there; one value, or one a class."""

    inner_folds: int = Field(5, ge=2)
    """Inner folds of the cross-fitted scores: each is scored with what was chosen on the others."""

    thresholds: tuple[Probability, ...] = ()
    """Tried for threshold and top_threshold. Empty: 0.05, 0.1, ... 0.95."""

    sizes: tuple[Pixels, ...] = ()
    """Tried for min_size and min_area. Empty: 0 and steps of the square root of 2 from a
    16,384th to a 16th of the largest image."""


class InferenceConfig(Section):
    """How strips are predicted, in OOF and in `steelseg predict`."""

    tta: Literal["none", "hflip", "vflip", "both"] = "none"
    """Test-time augmentation: mean over the strip and its flips; both has four views."""

    crops: bool = False
    """true predicts crops of the training size and averages their overlaps; false whole strips."""

    gate: Literal["none", "hard", "soft"] = "none"
    """hard empties a class whose presence is below postprocess.gate; soft multiplies its
    probabilities by its presence. Both need model.presence_head=true."""

    ensemble: Literal["together", "sequential"] = "together"
    """together keeps every checkpoint in memory; sequential holds one at a time."""

    cascade: bool = True
    """true skips what the first look of `steelseg cascade` finds clean; false looks at all."""

    amp: bool = False
    """true predicts in mixed precision where the machine has it: faster, not to the same bit."""

    submission_form: Literal[
        "auto", "ImageId_ClassId,EncodedPixels", "ImageId,ClassId,EncodedPixels"
    ] = "auto"
    """Header of submission.csv; auto takes sample_submission.csv's, else the first form."""

    @field_validator("tta", mode="before")
    @classmethod
    def _truth_is_a_flip(cls, value: Any) -> Any:
        """The baseline's TTA = True means a horizontal flip."""
        return (
            {True: "hflip", False: "none"}.get(value, value) if isinstance(value, bool) else value
        )


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
    def _a_classifier_brings_settings(cls, content: Any) -> Any:
        """Settle what a classifier leaves no choice about, where nothing else was asked for."""
        model = content.get("model") if isinstance(content, dict) else None
        if not (isinstance(model, dict) and model.get("arch") == "classifier"):
            return content
        train = content.get("train", {})
        if isinstance(train, dict):
            train = {"monitor": "presence", **train}
        return {**content, "model": {"presence_head": True, **model}, "train": train}

    @model_validator(mode="after")
    def _one_value_a_class(self) -> Self:
        classes = self.data.num_classes
        _must_be_long("train.pos_weight", self.train.pos_weight, classes, "data.num_classes")
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
    def _a_gate_needs_presence(self) -> Self:
        if self.inference.gate != "none" and not self.model.presence_head:
            raise ValueError(
                f"inference.gate={self.inference.gate} needs a network that was trained with "
                "model.presence_head=true; train one, or use inference.gate=none"
            )
        return self

    @model_validator(mode="after")
    def _a_classifier_makes_no_masks(self) -> Self:
        if not self.model.is_classifier:
            return self
        if self.inference.gate != "none":
            raise ValueError(
                f"inference.gate={self.inference.gate} holds presence against masks, which "
                "model.arch=classifier does not make; use inference.gate=none"
            )
        if self.train.monitor != "presence":
            raise ValueError(
                f"train.monitor={self.train.monitor} judges masks, which model.arch=classifier "
                "does not make; leave it out, or use train.monitor=presence"
            )
        if not self.train.presence_weight:
            raise ValueError(
                "train.presence_weight=0 leaves model.arch=classifier nothing to learn; use a "
                "weight above 0"
            )
        return self

    @model_validator(mode="after")
    def _presence_is_monitored_where_it_is(self) -> Self:
        if self.train.monitor == "presence" and not self.model.presence_head:
            raise ValueError(
                "train.monitor=presence judges a presence head, which the network does not have; "
                "use model.presence_head=true, or train.monitor=dice"
            )
        return self

    @model_validator(mode="after")
    def _pooled_features_need_two_samples(self) -> Self:
        pools = self.model.arch in ("pspnet", "deeplabv3", "deeplabv3plus")
        if pools and self.train.batch_size_train < 2:
            raise ValueError(
                f"model.arch={self.model.arch} normalises pooled features over the batch and "
                "cannot train with train.batch_size_train=1; use 2 or more"
            )
        return self

    @property
    def pos_weight(self) -> tuple[float, ...]:
        """Weight of a defect pixel of each class, given or by default."""
        if self.train.pos_weight:
            return self.train.pos_weight
        classes = self.data.num_classes
        return SEVERSTAL_POS_WEIGHT if classes == 4 else (1.0,) * classes


def setting_names() -> Iterator[str]:
    """Yield every setting as `section.name`, in the order of this file."""
    for section, field in Config.model_fields.items():
        for name in field.default.__class__.model_fields:
            yield f"{section}.{name}"
