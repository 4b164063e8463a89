"""Questions that the source model answers itself, for the chat part of the recipe's corpus.

Owns: a fixed, shuffled list of questions in five languages and the held-out split of it. The
answers are sampled by the script that makes the recipe; no text of others is needed.
"""

from __future__ import annotations

import hashlib
from itertools import product

COUNTRIES = (
    *("Italy", "France", "Germany", "Spain", "Portugal", "Japan", "China", "India", "Brazil"),
    *("Canada", "Egypt", "Greece", "Norway", "Sweden", "Poland", "Kenya", "Mexico", "Peru"),
    *("Australia", "Turkey", "Russia", "Ireland", "Austria", "the United Kingdom", "Finland"),
)
COUNTRY_QUESTIONS = (
    "What is the capital of {}?",
    "Tell me three facts about {}.",
    "What do people eat in {}?",
    "Which languages are spoken in {}?",
    "What is the largest city of {}, and what is it known for?",
)
TOPICS = (
    *("gravity", "photosynthesis", "the water cycle", "the French Revolution", "the Moon"),
    *("volcanoes", "bees", "dogs and cats", "democracy", "the Roman Empire", "electricity"),
    *("music", "football", "cooking pasta", "the heart", "vaccines", "computers", "the ocean"),
    *("money and inflation", "climate change", "dinosaurs", "sleep", "chess", "trees", "trains"),
)
TOPIC_QUESTIONS = (
    "Explain {} to a child.",
    "What should everyone know about {}?",
    "Write a short story about {}.",
    "Write a poem about {}.",
    "Why does {} matter? Answer in one sentence.",
    "Give me five tips or facts about {} as a list.",
)
TASKS = (
    *(
        "reverses a string",
        "computes the factorial of a number",
        "checks if a word is a palindrome",
    ),
    *("sorts a list of numbers", "reads a file and counts its lines", "finds the largest number"),
    *("adds two numbers", "counts the vowels in a text", "prints the Fibonacci numbers"),
    *(
        "merges two dictionaries",
        "removes duplicates from a list",
        "converts Celsius to Fahrenheit",
    ),
)
TASK_QUESTIONS = (
    "Write a Python function that {}.",
    "Write a JavaScript function that {}.",
    "How do I write a program that {}? Explain step by step.",
)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(", "))


SMALL_TALK = (
    *(
        "Hello!",
        "Hi, how are you?",
        "Who are you?",
        "What can you do?",
        "Thank you!",
        "Tell me a joke.",
    ),
    *("What is 2 + 2?", "What is 12 times 3?", "How many days are in a week?", "I feel sad today."),
    *("Who wrote Romeo and Juliet?", "Who painted the Mona Lisa?", "What is the speed of light?"),
    *("What is the largest planet?", "How do I learn a language?", "Name three colours."),
    *("Rewrite more politely: give me the report now.", "Summarise what a library is."),
    *("What is the opposite of hot?", "Which animal barks?", "Plan a weekend in Rome for me."),
)
OTHER_LANGUAGES = {
    "it": (
        ("Qual è la capitale di {}?", "Parlami di {} in italiano.", "Che cosa si mangia in {}?"),
        _words("Italia, Francia, Germania, Spagna, Giappone, Grecia, Egitto, Svezia"),
        ("Spiega che cosa è {}.", "Scrivi una breve storia su {}.", "Perché è importante {}?"),
        _words("la luna, il mare, la musica, il pane, la scuola, il sole, la storia, il cane"),
    ),
    "de": (
        ("Was ist die Hauptstadt von {}?", "Erzähle mir etwas über {}.", "Was isst man in {}?"),
        _words("Italien, Frankreich, Deutschland, Spanien, Japan, Polen, Ägypten, Schweden"),
        ("Erkläre, was {} ist.", "Schreibe eine kurze Geschichte über {}.", "Wozu dient {}?"),
        _words("der Mond, das Meer, die Musik, das Brot, die Schule, die Sonne, das Geld"),
    ),
    "fr": (
        ("Quelle est la capitale de {} ?", "Parle-moi de {}.", "Que mange-t-on en {} ?"),
        _words("Italie, France, Allemagne, Espagne, Chine, Grèce, Égypte, Suède"),
        ("Explique ce qu'est {}.", "Écris une petite histoire sur {}.", "À quoi sert {} ?"),
        _words("la lune, la mer, la musique, le pain, l'école, le soleil, l'argent, le chien"),
    ),
}


def questions(*, held_out: bool) -> list[str]:
    """The questions on one side of the split, in a fixed pseudo-random order."""
    chosen = [text for text in _all_questions() if (_rank(text) % 12 == 0) == held_out]
    return sorted(chosen, key=_rank)


def _all_questions() -> list[str]:
    pairs = [
        *product(COUNTRY_QUESTIONS, COUNTRIES),
        *product(TOPIC_QUESTIONS, TOPICS),
        *product(TASK_QUESTIONS, TASKS),
    ]
    for place_forms, places, thing_forms, things in OTHER_LANGUAGES.values():
        pairs += [*product(place_forms, places), *product(thing_forms, things)]
    return [*SMALL_TALK, *(form.format(subject) for form, subject in pairs)]


def _rank(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
