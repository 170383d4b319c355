"""The live room: rows are encoded by a baseline, checked, watched for drift, and spoken of."""
