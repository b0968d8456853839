"""The main job: one view in, the fused volume out."""
