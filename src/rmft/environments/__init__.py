"""Problems as others' frameworks play them: one object, and thin faces on it."""
