//! The signed payload: manifest, signatures, verity tree.
