"""A Stable Diffusion of seeded random weights, 64 x 64 pixels, as a folder that a user would have."""

import json
import string

SIDE, CONTEXT, HIDDEN = 64, 77, 32
TOWER = {"hidden_size": HIDDEN, "intermediate_size": 37, "num_attention_heads": 4, "num_hidden_layers": 2}


def write_model(folder, name="model", *, scheduler=None, is_strict=False):
    """Save a pipeline; `is_strict`: with a safety filter that lets nothing pass. Returns its path."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    filters = strict_filter() if is_strict else {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=(32, 64),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            norm_num_groups=8,
        ),
        text_encoder=CLIPTextModel(CLIPTextConfig(**TOWER, vocab_size=100, bos_token_id=0, eos_token_id=1, pad_token_id=1)),
        tokenizer=write_tokenizer(folder),
        unet=UNet2DConditionModel(
            block_out_channels=(32, 64),
            layers_per_block=1,
            sample_size=SIDE // 2,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=HIDDEN,
            attention_head_dim=4,
            norm_num_groups=8,
        ),
        scheduler=scheduler or DDIMScheduler(steps_offset=1, clip_sample=False, set_alpha_to_one=False),
        **filters,
    )
    pipeline.save_pretrained(folder / name)
    return str(folder / name)


def strict_filter():
    """A safety filter for which every image is unsafe, and what prepares images for it."""
    from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor

    checker = StableDiffusionSafetyChecker(CLIPConfig(projection_dim=16, vision_config=TOWER | {"image_size": 32, "patch_size": 8}))
    checker.concept_embeds_weights.data.fill_(-2.0)  # no cosine is below it
    size = {"height": 32, "width": 32}
    return {"safety_checker": checker, "feature_extractor": CLIPImageProcessor(size=size, crop_size=size)}


def write_tokenizer(folder):
    """One that knows letters, and letters that end a word."""
    from transformers import CLIPTokenizer

    words = ["<|startoftext|>", "<|endoftext|>", *string.ascii_lowercase, *(f"{letter}</w>" for letter in string.ascii_lowercase)]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=CONTEXT)
