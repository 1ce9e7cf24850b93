"""Image files and tars: found, decoded, validated."""
