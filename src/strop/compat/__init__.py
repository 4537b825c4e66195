"""Other tools' names over strop's functions, for code that is moved here."""
