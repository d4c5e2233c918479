"""Settings, edited here; every command of this folder reads them when it starts.

A line that is left out keeps the value that it has below. A name in upper case that is no
setting is refused; begin names of your own with _. Relative paths start where a command is typed.
"""

# Data: train.csv, train_images/, test_images/, sample_submission.csv
DATA_ROOT = "input"
NUM_CLASSES = 4
IMG_HEIGHT = 256  # None: every image has its own height
IMG_WIDTH = 1600
NUM_WORKERS = 2  # threads that load training samples

# Model
MODEL_ARCH = "unet"  # unetplusplus, fpn, linknet, pspnet, deeplabv3, deeplabv3plus
ENCODER = "efficientnet-b3"
ENCODER_WEIGHTS = "imagenet"  # from the model hub; "PATH.safetensors"; None: from scratch

# Training
NUM_FOLDS = 5
NUM_EPOCHS = 100
BATCH_SIZE_TRAIN = 8
BATCH_SIZE_VAL = 8
LEARNING_RATE = 5e-4
OPTIMIZER = "adam"  # adamw, sgd
SCHEDULER = "reduce_on_plateau"  # cosine, one_cycle, none
LOSS = "bce_dice_pos_weight"  # bce_with_logits, dice, combo, bce_pos_weight
SAVE_BEST_ONLY = True  # False: also keep checkpoint_epoch_N of every epoch

# Whole strips, or crops; crops cut while loading, or out of the store of precrop_setup.sh
USE_CROPS = False
USE_PRECROPPED = False  # needs USE_CROPS = True
PRECROPPED_DIR = "precropped_data"
CROP_HEIGHT = 256
CROP_WIDTH = 512
CROP_STRIDE = 256

# From probabilities to masks; one value, or a list of one a class
THRESHOLD = 0.5
MIN_SIZE = 3500  # pixels; smaller components are dropped, and with them most of classes 1 and 2

# Prediction
TTA = False  # mean over the strip and its flip
TTA_HORIZONTAL_FLIP = True
