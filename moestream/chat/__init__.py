"""Chats: the model's own template in a sandbox, conversations, reasoning, and answers to them.

``template`` and ``sandbox`` turn messages into text, ``named`` has templates that go by a name;
``conversation`` is what was said, ``reasoning`` tells thoughts from answers, ``dialogue`` joins a
conversation to a model, and ``settings`` is what can be chosen.
"""
