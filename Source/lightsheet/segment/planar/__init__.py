"""Objects in single planes: images in the layouts that people have, the trainer's task, model folders."""
