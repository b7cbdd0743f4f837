// Copyright (c) monai_fewshot contributors
// SPDX-License-Identifier: Apache-2.0
"use strict";

// NiiVue, with what this page changes in it.

// NiiVue fills masks, and blurs them between slices. This makes it draw them voxel by voxel, with a contour in each
// plane: its shader takes the color of a voxel in one line, which is replaced when the shader is compiled. Where that
// line is not found, masks are filled.

const FILLED = "ocolor = texture(overlay, texPos);";
const CONTOURED = `
    ivec3 size = textureSize(overlay, 0);
    ivec3 last = size - 1;
    ivec3 here = clamp(ivec3(floor(texPos * vec3(size))), ivec3(0), last);
    ocolor = texelFetch(overlay, here, 0);
    if (ocolor.a > 0.0) {
      ivec3 u = axCorSag == 2 ? ivec3(0, 1, 0) : ivec3(1, 0, 0);
      ivec3 v = axCorSag == 0 ? ivec3(0, 1, 0) : ivec3(0, 0, 1);
      vec4 right = texelFetch(overlay, min(here + u, last), 0);
      vec4 left = texelFetch(overlay, max(here - u, 0), 0);
      vec4 above = texelFetch(overlay, min(here + v, last), 0);
      vec4 below = texelFetch(overlay, max(here - v, 0), 0);
      bool isInside = right == ocolor && left == ocolor && above == ocolor && below == ocolor;
      ocolor.a = isInside ? 0.2 : 1.0;
    }
`;

const CROSS_HAIR = [0.8, 0.8, 0.8, 0.6];
const SHOW_RENDER_NEVER = 0;
const SAMPLES = 2e6;

const compiled = WebGL2RenderingContext.prototype.shaderSource;
WebGL2RenderingContext.prototype.shaderSource = function shaderSource(shader, text) {
  compiled.call(this, shader, text.replace(FILLED, CONTOURED));
};

// Make the viewer of three planes in a canvas.
async function makeViewer(canvas) {
  const viewer = new window.niivue.Niivue({
    dragAndDropEnabled: false,
    multiplanarShowRender: SHOW_RENDER_NEVER,
    isRadiologicalConvention: true,
    loadingText: "",
    crosshairColor: CROSS_HAIR,
    crosshairWidth: 0.5,
    logLevel: "error",
  });
  const rgbaTex = viewer.rgbaTex.bind(viewer);
  // Gradients shade surfaces, which are not shown: keep them small, as they take most of the time and memory.
  viewer.rgbaTex = (texture, unit, dims, ...rest) => {
    const isGradient = unit === viewer.gl.TEXTURE6 || unit === viewer.gl.TEXTURE8;
    return rgbaTex(texture, unit, isGradient ? [3, 1, 1, dims[3]] : dims, ...rest);
  };
  await viewer.attachToCanvas(canvas);
  viewer.setSliceType(viewer.sliceTypeMultiplanar);
  return viewer;
}

// Show an image and its mask, both NIfTI files, in the place of those before.
async function showInViewer(viewer, image, mask, colors) {
  const { NVImage } = window.niivue;
  const scan = await NVImage.loadFromUrl({ url: image, buffer: image, name: "image.nii" });
  const label = await NVImage.loadFromUrl({ url: mask, buffer: mask, name: "mask.nii", opacity: 1 });
  label.setColormapLabel(colors);
  viewer.volumes = [scan, label];
  viewer.scene.crosshairPos = [0.5, 0.5, 0.5];
  viewer.setVolume(label, 1);
  lookAtMask(viewer, label);
}

function emptyViewer(viewer) {
  for (const volume of [...viewer.volumes].reverse()) viewer.removeVolume(volume);
}

// Put the cross hair into the middle of the mask.
function lookAtMask(viewer, label) {
  const [, columns, rows] = label.hdr.dims;
  const sum = [0, 0, 0];
  let count = 0;
  const step = Math.max(1, Math.floor(label.img.length / SAMPLES));
  for (let i = 0; i < label.img.length; i += step) {
    if (!label.img[i]) continue;
    sum[0] += i % columns;
    sum[1] += Math.floor(i / columns) % rows;
    sum[2] += Math.floor(i / (columns * rows));
    count += 1;
  }
  if (!count) return;
  const place = [...sum.map((each) => Math.round(each / count)), 1];
  const mm = label.hdr.affine.slice(0, 3).map((row) => row.reduce((all, each, axis) => all + each * place[axis], 0));
  viewer.scene.crosshairPos = viewer.mm2frac(mm);
}
