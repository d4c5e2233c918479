"""The stage that predicts a folder of images."""
