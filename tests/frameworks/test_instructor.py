"""Instructor in its default mode."""

from __future__ import annotations

from typing import Literal

import instructor
from openai import OpenAI
from pydantic import BaseModel

from .conftest import Served


class User(BaseModel):
    """A user."""

    name: Literal["Jason", "Maria"]
    age: int


def test_the_default_mode(served: Served) -> None:
    client = instructor.from_openai(OpenAI(base_url=served.v1, api_key="none"))
    user = client.chat.completions.create(
        model=served.model,
        messages=[{"role": "user", "content": "Jason is 25 years old."}],
        response_model=User,
        temperature=0,
    )
    assert isinstance(user, User)


def test_a_partial_stream(served: Served) -> None:
    client = instructor.from_openai(OpenAI(base_url=served.v1, api_key="none"))
    *_, last = client.chat.completions.create_partial(
        model=served.model,
        messages=[{"role": "user", "content": "Jason is 25 years old."}],
        response_model=User,
        temperature=0,
    )
    assert last.name in ("Jason", "Maria")
