"""The pages in the browser, and the server behind them."""
