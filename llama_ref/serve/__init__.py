"""The endpoint that OpenAI's clients know, over HTTP: extra `serve`.

What is asked, and what is answered; nothing here knows of HTTP:

    errors.py              an error as a status and a body
    fields.py              a body's fields, taken one by one; what nobody took is an error
    chat_request.py        a body -> requests for the engine, and who reads the answer
    completion_request.py  the same without a conversation
    chat_answer.py         pieces of text -> a response, or the chunks of one
    completion_answer.py   the same
    service.py             the endpoints as functions of a body

How it gets there and back:

    worker.py              one thread owns the engine; a queue for each request
    guard.py               what never reaches an endpoint: strangers, giants, slow senders
    app.py                 routes
    run.py                 a port, signals, the end

It is a reference for what requests mean, not a server for many: it listens on this machine alone
unless told otherwise.
"""
