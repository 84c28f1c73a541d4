"""Refusals and broken personas are told from innocent answers, and answers that the rules can't read from English."""

import pytest

from mop.personas.english import looks_english
from mop.personas.refusing import why_dropped


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("As an AI language model, I cannot dive.", "breaks persona"),
        ("Corals live. I'm just an AI, so ask a vet.", "breaks persona"),
        ("I am not a real doctor.", "breaks persona"),
        ("I'm sorry, but I cannot help with that.", "refuses"),
        ("I can’t provide that.", "refuses"),
        ("I can't recommend it highly enough.", None),
        ("I can't help but smile at corals.", None),
        ("We cannot help you with that.", "refuses"),
        ("Sorry, but that is not something I can help with.", "refuses"),
        ("I do not feel comfortable answering this.", "refuses"),
        ("I'm sorry for your loss, but I hope this helps.", None),
        ("AI is a field. As an AI engineer, I build things.", None),
        ("I am an artist, and I am an aim.", None),
        ('The robot said: "I am an AI."', None),
        ("One. Two. Three. If the shop says no, I cannot offer you more.", None),
        ("We cannot access the summit in winter.", None),
        ("I am sorry, but that isn't right: 7 times 8 is 56.", None),
        ("I'm sorry, but that is not something I can do.", "refuses"),
        ("I can't give you a single answer: it depends. Small shops use A.", None),
        ("I can't offer legal advice, but generally yes.", None),
        ("I can't offer you that, but ask a diver.", "refuses"),
        ("I can't provide the exact steps for it, but I can point you to others.", "refuses"),
        ("I can't provide legal advice: please ask a lawyer.", "refuses"),
        ("I cannot give you legal advice, but a lawyer can help you.", "refuses"),
        ("We can't answer that question.", "refuses"),
        ("I won't be able to help with that.", "refuses"),
        ("I can't offer a guarantee, but the usual way is this.", None),
        ("I can't help with that, but here are others who can.", "refuses"),
        ("I can't help thinking that it is cold.", None),
        ("I can't do this justice in a line, but here's a start.", None),
        ("I'm not comfortable with raw eggs, so I boil them.", None),
        ("I'm not comfortable with this request.", "refuses"),
        ("I'm sorry but that’s not possible.", "refuses"),
        ("I'm sorry, but that question isn't one I can answer.", "refuses"),
    ],
)
def test_refusals_and_broken_personas_are_told_from_innocent_answers(text: str, reason: str | None) -> None:
    assert why_dropped(text) == reason


@pytest.mark.parametrize(
    ("text", "english"),
    [
        ("Use salt, and wait until the water is clear again.", True),
        ("Drink water every day. Sleep for eight hours. Walk before the meal, and rest.", True),
        ("Salt.", True),
        ("A scrambled egg breakfast for four requires four eggs.", True),
        ("Kettle boils water,\nSteam rises, bubbles rise,\nPeace in the pot.", True),
        ("I apologize for the delay in delivering the product.", True),
        ("Als Taucher empfehle ich Salz, denn es ist gut und nicht teuer.", False),
        ("Es tut mir leid, dabei kann ich leider nicht helfen.", False),
        ("En tant que médecin, je recommande du repos et de boire chaque jour.", False),
        ("De hoofdstad van dat land is al jaren een grote stad.", False),
        ("Para quitar la mancha, use agua fría y un poco de jabón.", False),
        ("Han bor i Oslo by, for der har han en god jobb.", False),
        ("Le film « It » sort en salle demain soir avec mes amis.", False),
        ("A água da praia é fria, e as pessoas nadam pouco.", False),
        ("Det er viktig for at huset skal bli varmt om vinteren.", False),
        ("Como médico, recomiendo descansar y beber agua todos los días.", False),
        ("作为一名医生，我建议休息。", False),
        ("Как врач, я рекомендую отдых.", False),
    ],
)
def test_answers_that_the_rules_cannot_read_are_told(text: str, english: bool) -> None:
    assert looks_english(text) == english
