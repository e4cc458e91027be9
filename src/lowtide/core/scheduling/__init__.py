"""Who is next, and when it will be done: fair queues, deadlines, forecasts, operating hours."""
