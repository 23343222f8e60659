//! From a profile to an image.
