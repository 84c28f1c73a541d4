"""Student: a trained student behind the OpenAI API, in the server's own process; its gate decides for every query."""
