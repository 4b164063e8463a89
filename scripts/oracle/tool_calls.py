"""Writes what llama.cpp's own parsers make of the outputs in its tests: tests/data/tool_calls.

Needs: llama.cpp's source, and a build of it with shared libraries (target ``llama-common``):

    cmake -S LLAMA -B BUILD -DGGML_NATIVE=OFF -DBUILD_SHARED_LIBS=ON -DLLAMA_CURL=OFF
    cmake --build BUILD -j1 --target llama-common
    python scripts/oracle/tool_calls.py LLAMA BUILD

Its tests/test-chat.cpp is compiled without its other tests, and with a ``run`` that prints what the
parser says instead of comparing it.
"""

import argparse
import json
import re
import subprocess
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

_DATA = Path(__file__).resolve().parents[2] / "tests" / "data" / "tool_calls"
_KEPT = (
    *("Qwen3.5-4B", "Qwen3-Coder", "Qwen-QwQ-32B", "Qwen-Qwen2.5-7B-Instruct", "MiMo-VL"),
    *("NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use", "ibm-granite-granite-3.3-2B-Instruct"),
    *("ibm-granite-granite-4.0", "ibm-granite-granite-4.1", "deepseek-ai-DeepSeek-V3.1"),
    *("NousResearch-Hermes-3-Llama-3.1-8B-tool_use", "deepseek-ai-DeepSeek-V3.2"),
    *("GLM-4.6", "GLM-4.7-Flash", "inclusionai-ling-3.0-flash", "moonshotai-Kimi-K2"),
    *("Kimi-K2-Thinking", "Kimi-K2-Instruct", "LFM2-8B-A1B", "LFM2.5-Instruct", "LFM2.5-8B-A1B"),
    *("MiniMax-M2", "mistralai-Mistral-Nemo-Instruct-2407", "openai-gpt-oss-120b"),
    *("mistralai-Ministral-3-14B-Reasoning-2512", "Mistral-Small-3.2-24B-Instruct-2506"),
    *("unsloth-mistral-Devstral-Small-2507", "google-gemma-4-31B-it"),
    *("deepseek-ai-DeepSeek-R1-Distill-Llama-8B", "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B"),
    *("llama-cpp-deepseek-r1", "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "StepFun3.5-Flash"),
    *("Cohere2MoE", "tencent-Hy3", "MiniMax-M3", "Kimi-K3"),
)
_PROGRAM = r"""
int main() {
    common_log_set_verbosity_thold(-1);
    test_template_output_peg_parsers(false);
    return 0;
}
"""
_RUN = r"""
    void run() {
        if (tc_.params.messages.empty()) {
            tc_.params.messages = { message_user };
        }
        json out = json::object();
        out["template"] = tester_.template_path();
        out["output"] = tc_.input;
        out["parallel"] = tc_.params.parallel_tool_calls;
        out["reasoning"] = tc_.params.reasoning_format != COMMON_REASONING_FORMAT_NONE;
        out["cut"] = tc_.is_partial;
        out["schema"] = !tc_.params.json_schema.empty();
        out["continued"] = tc_.params.continue_final_message != COMMON_CHAT_CONTINUATION_NONE;
        out["tools"] = common_chat_tools_to_json_oaicompat(tc_.params.tools);
        try {
            make_peg_parser parser(tester_.tmpls_.get(), tc_.params, false);
            out["prompt"] = parser.params_.generation_prompt;
            common_chat_msg said = parser.parse(tc_.input, tc_.is_partial);
            out["content"] = said.content;
            out["reasoning_content"] = said.reasoning_content;
            json calls = json::array();
            for (const auto & call : said.tool_calls) {
                json one = json::object();
                one["name"] = call.name;
                one["arguments"] = call.arguments;
                one["id"] = call.id;
                calls.push_back(one);
            }
            out["calls"] = calls;
        } catch (const std::exception & error) {
            out["error"] = std::string(error.what());
        }
        std::cout << out.dump() << std::endl;
    }
};

peg_test_builder peg_tester::test"""


def main() -> None:
    """Compile, run, and write a file for each template."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("llama", type=Path, help="llama.cpp's source")
    parser.add_argument("build", type=Path, help="its build")
    arguments = parser.parse_args()
    cases: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in _run(arguments.llama.resolve(), arguments.build.resolve()).splitlines():
        case = json.loads(line)
        name = Path(case.pop("template")).stem
        continued = case.pop("continued")  # its prompt holds a part of the answer
        if name in _KEPT and not continued and case not in cases[name]:
            cases[name].append(case)
    _DATA.mkdir(parents=True, exist_ok=True)
    for name, found in sorted(cases.items()):
        text = json.dumps(found, ensure_ascii=False, indent=1) + "\n"
        (_DATA / f"{name}.json").write_text(text)
        print(f"{name}: {len(found)} outputs")
    if missing := set(_KEPT) - set(cases):
        print(f"no outputs of {', '.join(sorted(missing))}")


def _run(llama: Path, build: Path) -> str:
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder) / "cases.cpp", Path(folder) / "cases"
        source.write_text(_reduced((llama / "tests" / "test-chat.cpp").read_text(), llama))
        places = ("common", "include", "ggml/include", "src", "vendor")
        libraries = build / "bin"
        subprocess.run(
            [
                *("c++", "-std=c++17", "-O1", "-w", str(source), "-o", str(program)),
                *(f"-I{llama / place}" for place in places),
                *(f"-L{libraries}", "-lllama-common", "-lllama", "-lggml", "-lggml-base"),
                *(f"-Wl,-rpath,{libraries}", f"-I{llama / 'tests'}"),
            ],
            check=True,
        )
        done = subprocess.run([program], cwd=llama, check=True, stdout=subprocess.PIPE)
        return done.stdout.decode()


def _reduced(text: str, llama: Path) -> str:
    """The tests of outputs alone, with our ``run``."""
    text = text.replace('#include "../tools/server/server-chat.h"\n', "")
    text = text.replace('"../src/', f'"{llama}/src/')
    text = _without(
        text, "static void test_msg_token_delimiters_split", "static void test_lfm2_parser"
    )
    text = text[: text.index("static void test_template_generation_prompt")]
    text = re.sub(
        r"    // Execute the test\n    void run\(\) \{.*?peg_test_builder peg_tester::test",
        lambda _: _RUN,
        text,
        flags=re.DOTALL,
    )
    return text + _PROGRAM


def _without(text: str, start: str, end: str) -> str:
    return text[: text.index(start)] + text[text.index(end) :]


if __name__ == "__main__":
    main()
