"""MGM-2B in transformers' idiom: configuration, modeling, processing and the kit's checkpoints.

Architecture: Li et al., "Mini-Gemini: Mining the Potential of Multi-modality Vision Language
Models" (2024): CLIP tokens ask a high-resolution ConvNeXt map, and Gemma reads the answers.
"""
