//! The image and the compose file agree with the program, as far as that shows without an engine.
