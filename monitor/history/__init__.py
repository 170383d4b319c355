"""What was measured, over thirty days: mergeable counts and sketches in three resolutions."""
