//! Bits flip, files are cut, bytes are anything: a typed error, or a safe prefix.
