//! The channel between keeper and worker: a closed set of messages, descriptors by `SCM_RIGHTS`.
