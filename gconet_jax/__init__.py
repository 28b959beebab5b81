"""GCoNet+ in JAX: co-salient object detection, trained, scored and used on groups of images."""
