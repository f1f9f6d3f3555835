// A pulse wave from face crops as they come, by a network that was exported as a stream:
//
//     python -m sspd_jax export --checkpoint=DIR --format=onnx --form=stream --output=pulse.onnx
//
//     import * as ort from "onnxruntime-web";
//     const stream = await PulseStream.open(ort, "pulse.onnx");
//     const samples = await stream.push(crop);  // Uint8Array of s × s × 3, RGB; the network's rate
//
// Runs in browsers and in Node. docs/phone.md says what the file takes and gives.

const ENDLESS = 1 << 20; // differences to come, while the recording's end is not known

export class PulseStream {
  /** Opens a file (a URL, or its bytes). `step`: crops that go through the network at once, even. */
  static async open(ort, file, { step = 8, options = {} } = {}) {
    if (!(step >= 2) || step % 2) throw new RangeError(`a step must be an even number of crops, not ${step}`);
    const session = await ort.InferenceSession.create(file, options);
    return new PulseStream(ort, session, step);
  }

  constructor(ort, session, step) {
    const shapes = Object.fromEntries(session.inputMetadata.map((input) => [input.name, input.shape]));
    if (!shapes.state) throw new TypeError("this file reads whole clips; export it with --form=stream");
    this.side = shapes.frames[1]; // height and width of a crop, pixels
    this.step = step;
    this._ort = ort;
    this._session = session;
    this._size = this.side * this.side * 3;
    this._crops = new Uint8Array((step + 1) * this._size);
    this._count = 0;
    this._state = new ort.Tensor("float32", new Float32Array(shapes.state[0]), shapes.state);
  }

  /**
   * Takes the next crop. Resolves to a Float32Array of what it adds to the wave: `step` samples with every
   * `step`th crop, none in between. They come late by the network's lag, and the first `lag` samples mean nothing.
   * Calls must wait for one another.
   */
  async push(crop) {
    if (crop.length !== this._size) {
      throw new RangeError(`a crop must hold ${this.side} × ${this.side} × 3 numbers, not ${crop.length}`);
    }
    this._crops.set(crop, this._count * this._size);
    this._count += 1;
    if (this._count <= this.step) return new Float32Array(0);
    const shape = [this._count, this.side, this.side, 3];
    const { wave, next_state: next } = await this._session.run({
      frames: new this._ort.Tensor("uint8", this._crops.slice(), shape),
      state: this._state,
      remaining: new this._ort.Tensor("int32", Int32Array.of(ENDLESS), [1]),
    });
    this._state = next;
    this._crops.copyWithin(0, this.step * this._size); // the last crop is the next block's first
    this._count = 1;
    return wave.data;
  }
}
