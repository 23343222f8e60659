//! The D-Bus contract between siris-agent and its clients.
