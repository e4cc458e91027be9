"""The batch routes of both vendors, and the answer to a dry run."""
