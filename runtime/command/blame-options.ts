export interface BlameOptions {
  connect?: string[];
  for: number;
  interval: number;
  fleet?: true;
  host?: string[];
  config: string;
  json?: true;
}
