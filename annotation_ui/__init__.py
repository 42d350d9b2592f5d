"""The browser app in which people compare two answers, and the store that keeps what they say."""
