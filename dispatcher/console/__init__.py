"""The web console: pages for people, drawn by the server, over the same operations as the API."""
