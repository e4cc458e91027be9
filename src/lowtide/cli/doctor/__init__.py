"""`lowtide doctor`: its checks, each a function from settings to a finding."""
