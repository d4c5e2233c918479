"""File formats: RLE masks, their CSV forms, JPEG and PNG images."""
