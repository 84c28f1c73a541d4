"""A causal model of few random weights with the smallest chat model's tokenizer: a step takes milliseconds."""

from pathlib import Path

LAYERS = 4


def make_tiny(folder: Path) -> Path:
    """Write the model to ``folder`` and return it."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from mop.lm.checkpoints import find
    from mop.students.models import _converted, prepare_tokenizer

    tokenizer = AutoTokenizer.from_pretrained(_converted(find("local/smollm2-135m-instruct")))
    prepare_tokenizer(tokenizer)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
