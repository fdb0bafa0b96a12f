"""Chat templates in the format of each family, as short as the format allows.

They are ours: what a family's template writes for ordinary conversations, not its text.
"""

from linn.chat.render import TEMPLATE

_TOOL_RULES = (
    "For each call, return a JSON object with name and arguments within <tool_call></tool_call>:"
)

_CHATML = """\
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""

_HERMES_SYSTEM = (
    """\
{%- set first = messages[0].content if messages[0].role == 'system' else DEFAULT %}
{%- if tools %}
{{- '<|im_start|>system\\n' + first + '\\n\\n# Tools\\n\\n<tools>' }}
{%- for tool in tools %}{{- '\\n' + tool | tojson }}{%- endfor %}
{{- '\\n</tools>\\n\\n"""
    + _TOOL_RULES
    + """\\n<tool_call>\\n{"name": N, "arguments": A}\\n</tool_call><|im_end|>\\n' }}
{%- elif first %}
{{- '<|im_start|>system\\n' + first + '<|im_end|>\\n' }}
{%- endif %}
"""
)

_HERMES_CALLS = """\
{%- for call in message.tool_calls or [] %}
{%- set call = call.function %}
{%- if not loop.first or content %}{{- '\\n' }}{%- endif %}
{{- '<tool_call>\\n{"name": "' + call.name + '", "arguments": ' }}
{{- call.arguments | tojson if call.arguments is mapping else call.arguments }}
{{- '}\\n</tool_call>' }}
{%- endfor %}
"""

_HERMES_RESULT = """\
{%- if loop.first or loop.previtem.role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}
{{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
{%- if loop.last or loop.nextitem.role != 'tool' %}{{- '<|im_end|>\\n' }}{%- endif %}
"""

_QWEN2 = (
    _HERMES_SYSTEM.replace("DEFAULT", "'You are a helpful assistant.'")
    + """\
{%- for message in messages %}
{%- if message.role == 'assistant' %}
{%- set content = message.content or '' %}
{{- '<|im_start|>assistant\\n' + content }}
"""
    + _HERMES_CALLS
    + """\
{{- '<|im_end|>\\n' }}
{%- elif message.role == 'tool' %}
"""
    + _HERMES_RESULT
    + """\
{%- elif not (loop.first and message.role == 'system') %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""
)

_QWEN3 = (
    _HERMES_SYSTEM.replace("DEFAULT", "''")
    + """\
{%- set ns = namespace(last=-1) %}
{%- for message in messages %}
{%- if message.role == 'user' %}{%- set ns.last = loop.index0 %}{%- endif %}
{%- endfor %}
{%- for message in messages %}
{%- if message.role == 'assistant' %}
{%- set content = message.content or '' %}
{%- set thought = message.reasoning_content or '' %}
{%- if not thought and '</think>' in content %}
{%- set thought = content.split('</think>')[0].split('<think>')[-1].strip('\\n') %}
{%- set content = content.split('</think>')[-1].lstrip('\\n') %}
{%- endif %}
{{- '<|im_start|>assistant\\n' }}
{%- if loop.index0 > ns.last and (loop.last or thought) %}
{{- '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
{%- else %}
{{- content }}
{%- endif %}
"""
    + _HERMES_CALLS
    + """\
{{- '<|im_end|>\\n' }}
{%- elif message.role == 'tool' %}
"""
    + _HERMES_RESULT
    + """\
{%- elif not (loop.first and message.role == 'system') %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}
{{- '<think>\\n\\n</think>\\n\\n' }}
{%- endif %}
{%- endif %}"""
)

_ALTERNATE = """\
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('Roles must alternate user/assistant/user/assistant/...') }}
{%- endif %}
"""

_LLAMA2 = (
    """\
{%- if messages[0].role == 'system' %}
{%- set turns = messages[1:] %}{%- set system = messages[0].content %}
{%- else %}
{%- set turns = messages %}{%- set system = '' %}
{%- endif %}
{%- for message in turns %}
"""
    + _ALTERNATE
    + """\
{%- set content = message.content %}
{%- if loop.first and system %}
{%- set content = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + content %}
{%- endif %}
{%- if message.role == 'user' %}
{{- bos_token + '[INST] ' + content.strip() + ' [/INST]' }}
{%- else %}
{{- ' ' + content.strip() + ' ' + eos_token }}
{%- endif %}
{%- endfor %}"""
)

_LLAMA3 = """\
{{- bos_token }}
{%- set date = date_string if date_string is defined else '26 Jul 2024' %}
{%- if messages[0].role == 'system' %}
{%- set system = messages[0].content.strip() %}{%- set turns = messages[1:] %}
{%- else %}
{%- set system = '' %}{%- set turns = messages %}
{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\nToday Date: ' + date + '\\n\\n' }}
{%- if tools %}
{{- 'You have access to these functions. Call one with {"name": N, "parameters": P}.\\n\\n' }}
{%- for tool in tools %}{{- tool | tojson(indent=4) + '\\n\\n' }}{%- endfor %}
{%- endif %}
{{- system + '<|eot_id|>' }}
{%- for message in turns %}
{%- if message.tool_calls %}
{%- if message.tool_calls | length != 1 %}
{{- raise_exception('This model only supports single tool-calls at once!') }}
{%- endif %}
{%- set call = message.tool_calls[0].function %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{{- '{"name": "' + call.name + '", "parameters": ' + call.arguments | tojson + '}' }}
{{- '<|eot_id|>' }}
{%- elif message.role == 'tool' %}
{{- '<|start_header_id|>ipython<|end_header_id|>\\n\\n' + message.content | tojson }}
{{- '<|eot_id|>' }}
{%- else %}
{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' }}
{{- message.content.strip() + '<|eot_id|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}"""

_MISTRAL = """\
{%- if messages[0].role == 'system' %}
{%- set system = messages[0].content %}{%- set turns = messages[1:] %}
{%- else %}
{%- set system = '' %}{%- set turns = messages %}
{%- endif %}
{{- bos_token }}
{%- set users = turns | selectattr('role', 'equalto', 'user') | list %}
{%- for message in turns %}
{%- if message.role == 'user' %}
{%- if tools and message == users[-1] %}
{{- '[AVAILABLE_TOOLS] ' + tools | tojson + '[/AVAILABLE_TOOLS]' }}
{%- endif %}
{%- if system and message == users[-1] %}
{{- '[INST] ' + system + '\\n\\n' + message.content + '[/INST]' }}
{%- else %}
{{- '[INST] ' + message.content + '[/INST]' }}
{%- endif %}
{%- elif message.tool_calls %}
{{- '[TOOL_CALLS] [' }}
{%- for call in message.tool_calls %}
{%- if call.id is not defined or call.id | length != 9 %}
{{- raise_exception('Tool call IDs should be alphanumeric strings with length 9!') }}
{%- endif %}
{{- '{"name": "' + call.function.name + '", "arguments": ' + call.function.arguments | tojson }}
{{- ', "id": "' + call.id + '"}' + (']' if loop.last else ', ') }}
{%- endfor %}
{{- eos_token }}
{%- elif message.role == 'assistant' %}
{{- ' ' + message.content.strip() + eos_token }}
{%- else %}
{{- '[TOOL_RESULTS] {"content": ' + message.content | tojson + ', "call_id": "' }}
{{- message.tool_call_id + '"}[/TOOL_RESULTS]' }}
{%- endif %}
{%- endfor %}"""

_GEMMA2 = (
    """\
{{- bos_token }}
{%- if messages[0].role == 'system' %}
{{- raise_exception('System role not supported') }}
{%- endif %}
{%- for message in messages %}
"""
    + _ALTERNATE
    + """\
{%- set role = 'model' if message.role == 'assistant' else message.role %}
{{- '<start_of_turn>' + role + '\\n' + message.content | trim + '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<start_of_turn>model\\n' }}{%- endif %}"""
)

_GEMMA3 = (
    """\
{{- bos_token }}
{%- if messages[0].role == 'system' %}
{%- set first = messages[0].content + '\\n\\n' %}{%- set turns = messages[1:] %}
{%- else %}
{%- set first = '' %}{%- set turns = messages %}
{%- endif %}
{%- for message in turns %}
"""
    + _ALTERNATE
    + """\
{%- set role = 'model' if message.role == 'assistant' else message.role %}
{{- '<start_of_turn>' + role + '\\n' + (first if loop.first else '') }}
{{- message.content | trim + '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<start_of_turn>model\\n' }}{%- endif %}"""
)

_PHI3 = """\
{%- for message in messages %}
{{- '<|' + message.role + '|>\\n' + message.content + '<|end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>\\n' }}{%- else %}{{- eos_token }}{%- endif %}"""

_SMOLLM2 = (
    """\
{%- if messages[0].role != 'system' %}
{{- '<|im_start|>system\\nYou are a helpful AI assistant.<|im_end|>\\n' }}
{%- endif %}
"""
    + _CHATML
)

_GPT_OSS = """\
{{- '<|start|>system<|message|>You are a language model.\\nCurrent date: ' }}
{{- strftime_now('%Y-%m-%d') + '\\n\\nReasoning: ' + reasoning_effort | default('medium') }}
{{- '\\n\\n# Valid channels: analysis, commentary, final.<|end|>' }}
{%- if messages[0].role == 'system' %}
{%- set system = messages[0].content %}{%- set turns = messages[1:] %}
{%- else %}
{%- set system = '' %}{%- set turns = messages %}
{%- endif %}
{%- if system or tools %}
{{- '<|start|>developer<|message|>' }}
{%- if system %}{{- '# Instructions\\n\\n' + system + '\\n\\n' }}{%- endif %}
{%- if tools %}
{{- '# Tools\\n\\nnamespace functions {\\n\\n' }}
{%- for tool in tools %}
{{- 'type ' + tool.function.name + ' = (_: ' + tool.function.parameters | tojson + ');\\n' }}
{%- endfor %}
{{- '}' }}
{%- endif %}
{{- '<|end|>' }}
{%- endif %}
{%- set called = namespace(name='') %}
{%- for message in turns %}
{%- if message.role == 'assistant' and message.tool_calls %}
{%- set answered = namespace(yes=false) %}
{%- for later in turns[loop.index:] %}
{%- if later.role == 'assistant' and not later.tool_calls %}
{%- set answered.yes = true %}
{%- endif %}
{%- endfor %}
{%- if message.content and message.thinking %}
{{- raise_exception('Cannot pass both content and thinking in a message with tool calls!') }}
{%- endif %}
{%- set thought = message.content or message.thinking %}
{%- if thought and not answered.yes %}
{{- '<|start|>assistant<|channel|>analysis<|message|>' + thought + '<|end|>' }}
{%- endif %}
{%- set call = message.tool_calls[0].function %}
{%- set called.name = call.name %}
{{- '<|start|>assistant to=functions.' + call.name + '<|channel|>commentary json<|message|>' }}
{{- call.arguments | tojson + '<|call|>' }}
{%- elif message.role == 'assistant' and loop.last and not add_generation_prompt %}
{%- if message.thinking %}
{{- '<|start|>assistant<|channel|>analysis<|message|>' + message.thinking + '<|end|>' }}
{%- endif %}
{{- '<|start|>assistant<|channel|>final<|message|>' + message.content + '<|return|>' }}
{%- elif message.role == 'assistant' %}
{{- '<|start|>assistant<|channel|>final<|message|>' + message.content + '<|end|>' }}
{%- elif message.role == 'tool' %}
{{- '<|start|>functions.' + called.name + ' to=assistant<|channel|>commentary<|message|>' }}
{{- message.content | tojson + '<|end|>' }}
{%- else %}
{{- '<|start|>' + message.role + '<|message|>' + message.content + '<|end|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start|>assistant' }}{%- endif %}"""

_GRANITE = (
    """\
{%- if messages[0].role == 'system' %}
{%- set first = messages[0].content %}{%- set turns = messages[1:] %}
{%- else %}
{%- set first = 'You are a helpful assistant.' %}{%- set turns = messages %}
{%- endif %}
{{- '<|start_of_role|>system<|end_of_role|>' + first }}
{%- if tools %}
{{- '\\n\\n<tools>' }}
{%- for tool in tools %}{{- '\\n' + tool | tojson }}{%- endfor %}
{{- '\\n</tools>\\n\\n"""
    + _TOOL_RULES
    + """\\n<tool_call>\\n{"name": N, "arguments": A}\\n</tool_call>' }}
{%- endif %}
{{- '<|end_of_text|>\\n' }}
{%- for message in turns %}
{%- if message.role == 'tool' %}
{%- if loop.first or loop.previtem.role != 'tool' %}
{{- '<|start_of_role|>user<|end_of_role|>' }}
{%- endif %}
{{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
{%- if loop.last or loop.nextitem.role != 'tool' %}{{- '<|end_of_text|>\\n' }}{%- endif %}
{%- else %}
{%- set content = message.content or '' %}
{{- '<|start_of_role|>' + message.role + '<|end_of_role|>' + content }}
"""
    + _HERMES_CALLS
    + """\
{{- '<|end_of_text|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_of_role|>assistant<|end_of_role|>' }}{%- endif %}"""
)

TEMPLATES = {
    "llama2": _LLAMA2,
    "llama3": _LLAMA3,
    "mistral": _MISTRAL,
    "qwen2": _QWEN2,
    "qwen3": _QWEN3,
    "gemma2": _GEMMA2,
    "gemma3": _GEMMA3,
    "phi3": _PHI3,
    "smollm2": _SMOLLM2,
    "gpt-oss": _GPT_OSS,
    "granite-hybrid": _GRANITE,
    # The published template says the same; linn's own base has this one.
    "nemotron_h": TEMPLATE.read_text(encoding="utf-8"),
}
"""By family; gpt2 has none."""
