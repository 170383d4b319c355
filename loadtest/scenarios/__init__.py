"""When requests are due: shapes of traffic, traces, and the scenarios of LoadGen."""
