//! What the agent asks of ZFS, behind one trait.
