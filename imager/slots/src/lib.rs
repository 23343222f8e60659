//! Slots: their layout on disk, their boot state, their one writer.
