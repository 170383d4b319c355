"""The demo: 336,776 real flights, two real model servers, and Understudy in between."""
