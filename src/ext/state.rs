//! State manager: managed state per id under an "all" topic.
