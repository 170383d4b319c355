"""What the columns of a model usually look like: built, merged, shown, compared, kept in a file."""
