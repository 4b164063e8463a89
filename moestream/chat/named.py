"""The chat templates that have names, for files that bring none or a bad one.

Each renders what llama.cpp's built-in template of the same name does, with the model's own EOS
where that is part of it. None writes BOS: the tokenizer does.
"""


def _turns(turn: str, answer: str, *, start: str = "") -> str:
    """A template of one expression a message, and one that opens the answer."""
    return (
        f"{start}{{%- for message in messages -%}}"
        "{%- set role = message['role'] -%}{%- set content = message['content'] -%}"
        f"{{{{- {turn} -}}}}"
        "{%- endfor -%}"
        f"{{%- if add_generation_prompt -%}}{{{{- {answer} -}}}}{{%- endif -%}}"
    )


def _instructions(start: str, system: str, user: str, assistant: str) -> str:
    """A template of ``[INST]`` turns, begun by ``start`` before a system or user message."""
    return f"""
{{%- set ns = namespace(open=false) -%}}
{{%- for message in messages -%}}
    {{%- set content = message['content'] -%}}
    {{%- if not ns.open -%}}
        {{%- set ns.open = true -%}}
        {{{{- {start} -}}}}
    {{%- endif -%}}
    {{%- if message['role'] == 'system' -%}}
        {{{{- {system} -}}}}
    {{%- elif message['role'] == 'user' -%}}
        {{{{- {user} -}}}}
    {{%- else -%}}
        {{{{- {assistant} + eos_token -}}}}
        {{%- set ns.open = false -%}}
    {{%- endif -%}}
{{%- endfor -%}}
""".strip()


_GEMMA = """
{%- set ns = namespace(system='') -%}
{%- for message in messages -%}
    {%- if message['role'] == 'system' -%}
        {%- set ns.system = ns.system + message['content'] | trim -%}
    {%- else -%}
        {%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
        {{- '<start_of_turn>' + role + '\\n' -}}
        {%- if ns.system and role != 'model' -%}
            {{- ns.system + '\\n\\n' -}}
            {%- set ns.system = '' -%}
        {%- endif -%}
        {{- message['content'] | trim + '<end_of_turn>\\n' -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}
""".strip()


def _by_role(system: str, user: str, assistant: str) -> str:
    return f"{system} if role == 'system' else {user} if role == 'user' else {assistant}"


_COMMAND_R_TURN = (
    r"'<|START_OF_TURN_TOKEN|>' + {'system': '<|SYSTEM_TOKEN|>', 'user': '<|USER_TOKEN|>'}"
    r".get(role, '<|CHATBOT_TOKEN|>') + content | trim + '<|END_OF_TURN_TOKEN|>'"
)

TEMPLATES = {
    "chatml": _turns(
        r"'<|im_start|>' + role + '\n' + content + '<|im_end|>\n'", r"'<|im_start|>assistant\n'"
    ),
    "llama2": _instructions(r"'[INST] '", r"content + '\n'", r"content + ' [/INST]'", "content"),
    "llama2-sys": _instructions(
        r"'[INST] '",
        r"'<<SYS>>\n' + content + '\n<</SYS>>\n\n'",
        r"content + ' [/INST]'",
        "content",
    ),
    "llama3": _turns(
        r"'<|start_header_id|>' + role + '<|end_header_id|>\n\n' + content | trim + '<|eot_id|>'",
        r"'<|start_header_id|>assistant<|end_header_id|>\n\n'",
    ),
    "llama4": _turns(
        r"'<|header_start|>' + role + '<|header_end|>\n\n' + content | trim + '<|eot|>'",
        r"'<|header_start|>assistant<|header_end|>\n\n'",
    ),
    "mistral-v1": _instructions(
        "' [INST] '", r"content + '\n\n'", "content + ' [/INST]'", "' ' + content"
    ),
    "mistral-v3": _instructions(
        "'[INST] '", r"content + '\n\n'", "content + '[/INST]'", "' ' + content | trim"
    ),
    "mistral-v3-tekken": _instructions(
        "'[INST]'", r"content + '\n\n'", "content + '[/INST]'", "content"
    ),
    "mistral-v7": _turns(
        _by_role(
            "'[SYSTEM_PROMPT] ' + content + '[/SYSTEM_PROMPT]'",
            "'[INST] ' + content + '[/INST]'",
            "' ' + content + eos_token",
        ),
        "''",
    ),
    "mistral-v7-tekken": _turns(
        _by_role(
            "'[SYSTEM_PROMPT]' + content + '[/SYSTEM_PROMPT]'",
            "'[INST]' + content + '[/INST]'",
            "content + eos_token",
        ),
        "''",
    ),
    "gemma": _GEMMA,
    "zephyr": _turns(r"'<|' + role + '|>\n' + content + eos_token + '\n'", r"'<|assistant|>\n'"),
    "phi3": _turns(r"'<|' + role + '|>\n' + content + '<|end|>\n'", r"'<|assistant|>\n'"),
    "phi4": _turns(
        "'<|im_start|>' + role + '<|im_sep|>' + content + '<|im_end|>'",
        "'<|im_start|>assistant<|im_sep|>'",
    ),
    "vicuna": _turns(
        _by_role(
            r"content + '\n\n'",
            r"'USER: ' + content + '\n'",
            r"'ASSISTANT: ' + content + eos_token + '\n'",
        ),
        "'ASSISTANT:'",
    ),
    "deepseek": _turns(
        _by_role(
            "content",
            r"'### Instruction:\n' + content + '\n'",
            r"'### Response:\n' + content + '\n<|EOT|>\n'",
        ),
        r"'### Response:\n'",
    ),
    "deepseek2": _turns(
        _by_role(
            r"content + '\n\n'",
            r"'User: ' + content + '\n\n'",
            "'Assistant: ' + content + eos_token",
        ),
        "'Assistant:'",
    ),
    "deepseek3": _turns(
        _by_role(
            r"content + '\n\n'",
            "'<｜User｜>' + content",
            "'<｜Assistant｜>' + content + eos_token",
        ),
        "'<｜Assistant｜>'",
    ),
    "command-r": _turns(_COMMAND_R_TURN, "'<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>'"),
    "chatglm4": _turns(
        r"'<|' + role + '|>\n' + content", r"'<|assistant|>\n'", start="[gMASK]<sop>"
    ),
    "granite": _turns(
        r"'<|start_of_role|>' + role + '<|end_of_role|>' + content + '<|end_of_text|>\n'",
        "'<|start_of_role|>assistant<|end_of_role|>'",
    ),
}
