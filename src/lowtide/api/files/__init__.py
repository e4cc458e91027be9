"""The file and upload routes of both vendors."""
