"""Writers of submission.csv, COCO, PNG masks, JSON lines and overlays."""
