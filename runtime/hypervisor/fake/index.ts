/** The fake backend, for tests of programs that build on domsched as well as for our own. */
export { FakeDomain, type FakeDomainOptions } from './domain.ts';
export { FakeHost } from './host.ts';
export { FrameImage } from './image.ts';
export { type FakeCall, type FakeCallKind, Recorder } from './recorder.ts';
